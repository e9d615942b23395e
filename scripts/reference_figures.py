"""The figures that the documentation quotes, each computed from a file of results/reference."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import breaching_figures
import defence_figures
import exact_figures
import gradinversion_figures
import head_figures
import label_figures
import pandas as pd
from rich.console import Console
from scipy.stats import binom
from stored_results import HOME, identified, photographs, results, share

import dpbench
from dpbench.cell import registered
from dpbench.decide.choices import Choice, Training
from dpbench.decide.table import text as decide_text
from dpbench.report.compare.intervals import bootstrap
from dpbench.report.tables import rich_table


class Figures(Mapping[str, Any]):
    """Figures by name, each computed when a page asks for it."""

    def __init__(self, **makers: Callable[[], Any]) -> None:
        self._makers = {name: cache(maker) for name, maker in makers.items()}

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def terminal() -> str:
    """What the terminal shows of the run `main`, down to the table's end."""
    registered.load()
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(dpbench.load(HOME / "main")))
    return console.export_text().split("\n\nmodel convnet")[0]


def main_run() -> dict[str, Any]:
    """Where the run `main` was made, and of how many photographs."""
    where = json.loads((HOME / "main" / "environment.json").read_text())
    rows = results("main")
    sizes = rows[rows["floor"].isna()].groupby("batch_size")["image"].nunique()
    return {
        "torch": where["packages"]["torch"],
        "version": where["packages"]["dpbench"],
        "sizes": list(sizes),
    }


def epsilon() -> dict[str, Any]:
    """Suite `epsilon`: what each attack identifies at each budget, and the controls."""
    rows = results("epsilon")
    class_mean = rows[(rows["floor"] == "start") & (rows["floor_of"] == "lmmse")]
    class_mean = class_mean.set_index("original_index")["psnr"]
    return {
        "images": rows["original_index"].nunique(),
        "class_mean": class_mean.mean(),
        "constant": rows.loc[rows["floor"] == "constant-image", "psnr"].mean(),
        "gallery": int(rows["gallery_size"].max()),
        "public_images": int(rows["public_images"].max()),
        "of": {attack: _by_budget(rows, attack, class_mean) for attack in ("lmmse", "map")},
    }


def _by_budget(rows: pd.DataFrame, attack: str, class_mean: pd.Series) -> dict[str, Any]:
    fed_noise = rows[(rows["floor"] == "noise-gradient") & (rows["floor_of"] == attack)]
    found = rows[rows["floor"].isna() & (rows["attack"] == attack)]
    budgets = found[found["defense"] == "dp"].groupby("eps_release")
    return {
        "undefended": found.loc[found["defense"] == "none", "psnr"].mean(),
        "fed_noise": identified(fed_noise),
        "at": {f"{eps:g}": _beside_the_mean(at, class_mean) for eps, at in budgets},
    }


def _beside_the_mean(rows: pd.DataFrame, class_mean: pd.Series) -> dict[str, Any]:
    found, rows = identified(rows), rows.set_index("original_index")
    gain = rows["psnr"] - class_mean
    chance = 1 / rows["gallery_size"].iloc[0]
    return found | {
        "sigma": rows["noise_multiplier"].iloc[0],
        "p": binom.sf(found["count"] - 1, found["of"], chance),
        "psnr": rows["psnr"].mean(),
        "gain": gain.mean(),
        "error": gain.std() / len(gain) ** 0.5,
    }


def clip() -> dict[str, Any]:
    """Suite `clip`: images by their share of the batch's gradient norm, clipped less undefended."""
    rows = results("clip")
    found = rows[rows["floor"].isna()].set_index(["batch_seed", "image"])
    plain = found[found["defense"] == "none"]
    part = plain["image_grad_share"]
    groups = {"quiet": part < 0.15, "middle": part.between(0.15, 0.3), "loud": part > 0.3}
    levels, counts = {}, {"none": share(plain["identified"].sum(), len(plain))}
    for norm, clipped in found[found["defense"] == "clip"].groupby("max_grad_norm"):
        clipped = clipped.loc[plain.index]
        change = clipped["psnr"] - plain["psnr"]
        counts[f"{norm:g}"] = share(clipped["identified"].sum(), len(clipped))
        levels[f"{norm:g}"] = {name: _changed(plain[which], clipped[which]) for name, which in groups.items()}
        levels[f"{norm:g}"]["correlation"] = part.corr(change, method="spearman")
    fed_noise = rows[rows["floor"] == "noise-gradient"]
    return {
        "batches": plain.index.get_level_values("batch_seed").nunique(),
        "levels": levels,
        "identified": counts,
        "fed_noise": share(fed_noise["identified"].sum(), len(fed_noise)),
    }


def _changed(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    batches = before.index.get_level_values("batch_seed").to_numpy()
    found: dict[str, Any] = {"images": len(before)}
    for name in ("psnr", "lpips"):
        change = (after[name] - before[name]).to_numpy()
        low, high = bootstrap(change, batches)
        values = {"before": before[name].mean(), "after": after[name].mean()}
        found[name] = values | {"change": change.mean(), "low": low, "high": high}
    return found


def peel() -> dict[str, Any]:
    """The closed form `peel`, by victim and defence; `fresh` are the seeds that nothing was changed on."""
    run = results("exact")
    fresh = pd.read_csv(HOME / "exact" / "peel.csv").query("batch_seed >= 1050")
    seen = run[run["floor"].isna()].assign(certified=lambda t: t["certified"].astype(bool))
    return {
        name: {
            (victim, defence): {
                "certified": share(found["certified"].sum(), len(found)),
                "above": share((found["psnr"] > 60).sum(), len(found)),
                "median": found["psnr"].median(),
                "worst": found["psnr"].min(),
                "worst_certified": found.loc[found["certified"], "psnr"].min(),
                "seconds": found["seconds"].median(),
                "most_seconds": found["seconds"].max(),
            }
            for (victim, defence), found in rows.groupby(["victim", "defense"])
        }
        for name, rows in (("fresh", fresh), ("seen", seen))
    }


def malicious() -> dict[str, Any]:
    """Suite `malicious-linear`: three kinds of attackers, by budget and number of releases."""
    rows = results("malicious-linear")
    attacked = rows[rows["floor"].isna() & (rows["defense"] == "dp")]
    fed_noise = rows[(rows["floor"] == "noise-gradient")]
    informed = attacked[attacked["attack"] == "prior-aware"]
    informed = photographs(informed).assign(right=lambda t: (t["success"] * t["trials"]).round())
    at = attacked[(attacked["attack"] == "analytic") & (attacked["releases"] == 1)]
    probe = at[(at["eps_release"] == 2) & (at["batch_seed"] == 0)].iloc[0]
    constant = rows[(rows["floor"] == "constant-image") & (rows["batch_seed"] == 0)]
    return {
        "version": rows["version"].iloc[0],
        "images": rows["original_index"].nunique(),
        "gallery": int(rows["gallery_size"].max()),
        "probe": probe.to_dict() | {"constant": constant["psnr"].iloc[0]},
        "identified": {
            (attack, f"{eps:g}", int(releases)): identified(found)
            for (attack, eps, releases), found in attacked.groupby(["attack", "eps_release", "releases"])
            if attack != "prior-aware"
        },
        "fed_noise": {attack: identified(found) for attack, found in fed_noise.groupby("floor_of")},
        "informed": {
            f"{eps:g}": share(found["right"].sum(), int(found["trials"].sum()))
            | {"bound": found["success_bound"].max(), "each": int(found["trials"].iloc[0])}
            for eps, found in informed[informed["releases"] == 1].groupby("eps_release")
        },
    }


def trained() -> dict[str, Any]:
    """How far the victim was trained, for the search: medians, floors and images picked out."""
    rows = results("trained")
    return {"version": rows["version"].iloc[0]} | {
        victim: _beside_floors(found) for victim, found in rows.groupby("victim")
    }


def _beside_floors(rows: pd.DataFrame) -> dict[str, Any]:
    attacked = photographs(rows[rows["floor"].isna()])
    floors = photographs(rows[rows["floor"].notna()])
    mean_image = floors[floors["floor"] == "mean-image"].set_index("original_index")["psnr"]
    psnr = attacked.set_index("original_index")["psnr"]
    return {
        "images": len(attacked),
        "above_mean_image": (psnr - mean_image).median(),
        "lpips": attacked["lpips"].median(),
        "lpips_floor": floors.groupby("attack")["lpips"].median().min(),
        "identified": identified(attacked),
        "fed_noise": identified(floors[floors["floor"] == "noise-gradient"]),
        "gallery": int(attacked["gallery_size"].max()),
    }


def presets() -> dict[str, Any]:
    """The default search without a defence, by batch size: mean and median PSNR by victim, and images."""
    rows = pd.read_csv(HOME / "default-attack" / "presets.csv")
    found = rows[rows["preset"] == "tuned"].groupby(["batch_size", "victim"])["psnr"]
    by_size = {"mean": found.mean(), "median": found.median(), "images": found.size()}
    figures = {name: {size: of[size].to_dict() for size in (1, 4)} for name, of in by_size.items()}
    return figures | {"images": {size: min(of.values()) for size, of in figures["images"].items()}}


def decide() -> dict[str, Any]:
    """The table of `dpbench.decide` and its choices by epsilon."""
    stored = json.loads((HOME / "decide" / "decide.json").read_text())
    taken = ("train_size", "train_batch_size", "epochs", "delta")
    training = Training(**{name: stored["training"][name] for name in taken})
    choices = [
        Choice(**{**row, "eps_user": float(row["eps_user"] or "inf")}, curve=None)
        for row in stored["choices"]
    ]
    return {
        "table": decide_text(training, choices).split("\n\n")[1],
        "at": {f"{row['eps']:g}": row for row in stored["choices"]},
    }


def decide_run() -> dict[str, Any]:
    """The committed decision: accuracies and verdicts by epsilon."""
    accuracy = pd.read_csv(HOME / "decide-run" / "utility.csv")
    accuracy = accuracy[(accuracy["utility_model"] == "scattering-linear") & (accuracy["status"] == "ok")]
    seen = pd.read_csv(HOME / "decide-run" / "frontier.csv")
    seen = seen[(seen["threat_model"] == "informed") & seen["eps"].notna()]
    return {
        "without": accuracy.loc[accuracy["defense"] == "none", "accuracy"].mean(),
        "accuracy": {f"{eps:g}": found.mean() for eps, found in accuracy.groupby("eps")["accuracy"]},
        "informed": {asked: _verdict_at(seen, float(asked)) for asked in ("1", "3", "8")},
    }


def _verdict_at(seen: pd.DataFrame, eps: float) -> str:
    """Of the level whose noise was calibrated for this budget."""
    nearest = (seen["eps"] / eps - 1).abs().idxmin()
    return str(seen.loc[nearest, "verdict"])


def filters() -> dict[str, Any]:
    """What `lmmse` makes of each product's filter."""
    rows = results("filters")
    return {
        name: {
            "psnr": found["psnr"].mean(),
            "least": found["psnr"].min(),
            "most": found["psnr"].max(),
            "identified": identified(found),
        }
        for name, found in rows[rows["floor"].isna()].groupby("defense")
    }


FIGURES = Figures(
    terminal=terminal,
    main=main_run,
    epsilon=epsilon,
    clip=clip,
    defences_adaptive=defence_figures.adaptive,
    defences_strongest=defence_figures.strongest,
    defences_drawn=defence_figures.drawn,
    peel=peel,
    spear=exact_figures.spear,
    convolutions=exact_figures.convolutions,
    transformer=exact_figures.transformer,
    behind=exact_figures.behind,
    heads=head_figures.heads,
    noisy_heads=head_figures.noisy_heads,
    malicious=malicious,
    labels=label_figures.labels,
    labels_under_noise=label_figures.labels_under_noise,
    trained=trained,
    presets=presets,
    decide=decide,
    decide_run=decide_run,
    filters=filters,
    batches_of_four=gradinversion_figures.batches_of_four,
    batch_sizes=gradinversion_figures.batch_sizes,
    single_photographs=gradinversion_figures.single_photographs,
    deep_search=gradinversion_figures.deep_search,
    methods=gradinversion_figures.methods,
    terms=gradinversion_figures.terms,
    statistics=gradinversion_figures.statistics,
    confidence=gradinversion_figures.confidence,
    quality=breaching_figures.quality,
)
