"""A defence of your own: rounding with error feedback. `python examples/own_defense.py` tries it."""

import dpbench
from defenses import PostProcessor, defense
from dpbench.protocol import parameter


@defense("q8")
class Q8(PostProcessor):
    """Entries become multiples of max|g| / 2**(bits - 1); the next release makes up for the error."""

    remembers = True
    bits: int = parameter(8, "bits that q8 keeps of each gradient entry", at_least=2, at_most=16)

    def process(self, gradients, generator):
        return self.stream(generator)(gradients)

    def stream(self, generator):
        error = {}  # of each tensor: what its earlier releases left out

        def send(gradients):
            wanted = [g + error.get(i, 0) for i, g in enumerate(gradients)]
            sent = tuple(map(self.rounded, wanted))
            error.update(enumerate(w - s for w, s in zip(wanted, sent, strict=True)))
            return sent

        return send

    def rounded(self, g):
        step = g.abs().max().clamp_min(1e-30) / 2 ** (self.bits - 1)
        return (g / step).round() * step


if __name__ == "__main__":
    one = dpbench.data.draw_batch(dpbench.data.load_data("samples"), 1, seed=0)
    model = dpbench.victim.networks.build("lenet")
    table = dpbench.benchmark(model, one.images, one.labels, defense="q8", bits=[2, 8], iterations=300)
    print(table.groupby(["attack", "defense", "bits"], dropna=False)["psnr"].mean())
