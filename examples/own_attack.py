"""An attack of your own: least squares on the gradient. `python examples/own_attack.py` tries it."""

import torch

import dpbench
from attacks import labels, parameters
from attacks.base import Attack, attack
from dpbench.protocol import Reconstruction, parameter


@attack("least-squares")
class LeastSquares(Attack):
    """Searches pixels by Adam for an image with the released gradient."""

    iterations: int = parameters.iterations(300)
    step: float = parameter(0.1, "step size of least-squares, before the sigmoid", above=0)

    def run(self, task):
        release, known = task.release, task.knowledge
        classes, source = labels.given_or_inferred(release, known)
        start = task.noise(release.batch_size, *known.image_shape)
        z, weights = start.clone().requires_grad_(), [p for p in known.model.parameters() if p.requires_grad]
        adam = torch.optim.Adam([z], lr=self.step)
        for i in range(self.iterations):
            loss = known.loss(known.model(z.sigmoid()), classes)
            trial = torch.autograd.grad(loss, weights, create_graph=True)
            distance = sum((a - b).square().sum() for a, b in zip(trial, release.gradients, strict=True))
            (z.grad,) = torch.autograd.grad(distance, [z])
            adam.step()
            task.progress(i + 1, self.iterations, distance.item())
        found, more = z.detach().sigmoid(), (self.iterations, task.seconds())
        return Reconstruction(found, classes, source, distance.item(), start.sigmoid(), *more)


if __name__ == "__main__":
    one = dpbench.data.draw_batch(dpbench.data.load_data("samples"), 1, seed=0)
    model = dpbench.victim.networks.build("lenet")
    table = dpbench.benchmark(model, one.images, one.labels, attacks="least-squares")
    print(table[["attack", "psnr", "lpips"]])
