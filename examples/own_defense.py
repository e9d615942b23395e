"""A defence of your own: rounding with error feedback. `python examples/own_defense.py` tries it."""

import dpbench
from defenses import PostProcessor, defense
from dpbench.protocol import parameter


@defense("q8")
class Q8(PostProcessor):
    """Rounds each entry to a multiple of max|g| / 2**(bits - 1); the next release makes up for it."""

    remembers = True
    bits: int = parameter(8, "bits that q8 keeps of each gradient entry", at_least=2, at_most=16)

    def process(self, gradients, generator):
        return self.process_all([gradients], generator)[0]

    def process_all(self, releases, generator):
        sent, error = [], [0.0] * len(releases[0])
        for gradients in releases:
            wanted = [g + e for g, e in zip(gradients, error, strict=True)]
            sent.append(tuple(map(self.rounded, wanted)))
            error = [w - s for w, s in zip(wanted, sent[-1], strict=True)]
        return sent

    def rounded(self, g):
        step = g.abs().max().clamp_min(1e-30) / 2 ** (self.bits - 1)
        return (g / step).round() * step


if __name__ == "__main__":
    one = dpbench.data.draw_batch(dpbench.data.load_data("samples"), 1, seed=0)
    model = dpbench.victim.networks.build("lenet")
    table = dpbench.benchmark(model, one.images, one.labels, defense="q8", bits=[2, 8], iterations=300)
    print(table.groupby(["attack", "defense", "bits"], dropna=False)["psnr"].mean())
