"""The command line: python -m dpbench.decide --train-size 20000 --train-batch-size 256 --epochs 30."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpbench.system import output, program


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what the user has to change; 130 after Ctrl-C or SIGTERM.

    Args:
        arguments: without the program's name; those of this process unless given.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    kept = "what was measured is kept; the same command goes on"
    said = f"Interrupted: {kept}." if "--run" in given else "Interrupted; nothing was written."
    return program.run(_main, given, said)


def _main(arguments: list[str]) -> int:
    # what takes seconds to import is imported where it can be interrupted
    from dpbench.decide.options import options, parse
    from dpbench.protocol import InputError
    from dpbench.sweep.reading import as_flags

    try:
        return _decide(parse(arguments))
    except InputError as error:
        return program.refuse(error, lambda sentence: as_flags(sentence, options()))


def _decide(given: dict) -> int:
    from dpbench.decide.choices import Training, choices
    from dpbench.decide.files import write
    from dpbench.decide.options import ATTACKED, options
    from dpbench.decide.table import text
    from dpbench.privacy import delta_note
    from dpbench.sweep.reading import as_flags

    attacked = {name: given.pop(name) for name in ATTACKED}
    run, quick, workers, out, quiet = (given.pop(n) for n in ("run", "quick", "workers", "out", "quiet"))
    training = Training(
        **{name: given.pop(name) for name in ("train_size", "train_batch_size", "epochs", "delta")}
    )

    if run:
        from dpbench.decide import measured

        measured.check(training, attacked, quick=quick)

    def note(line: str) -> None:
        print(output.plain(as_flags(line, options())), file=sys.stderr, flush=True)

    chosen = choices(training, **given)
    if said := delta_note(training.delta, training.train_size):
        note(said)
    print(text(training, chosen), flush=True)
    answer = None
    if run:
        from dpbench.decide import answer as answering

        found = measured.measure(
            training,
            chosen,
            given["eps"],
            out,
            attacked,
            quick=quick,
            workers=workers,
            progress=not quiet,
            note=note,
        )
        answer = answering.answers(chosen, found)
        print("", *map(output.plain, answering.text(answer).splitlines()), sep="\n", flush=True)
    if out is not None:
        print()
        files = write(out, training, chosen, answer)
        if run:
            measured.export(out)
        names = ["report.html"] if run else [file.name for file in files]
        print(output.plain(f"{out}/  {'  '.join(names)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
