"""What has to be said beside the budgets of a plug-in, whose noise nobody here has tested."""


def vouched(defence: str) -> str:
    """One sentence: the budgets and bounds of `defence` are those of Gaussian noise, on its author's word."""
    return (
        f"The epsilon of {defence} is that of Gaussian noise, which its author vouches for and not dpbench: "
        "dpbench.testing.check_defense tests it."
    )
