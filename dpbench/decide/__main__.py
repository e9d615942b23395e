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
    return program.run(_main, arguments, "Interrupted; nothing was written.")


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
    from dpbench.decide.options import options
    from dpbench.decide.table import text
    from dpbench.privacy import delta_note
    from dpbench.sweep.reading import as_flags

    out = given.pop("out")
    training = Training(
        **{name: given.pop(name) for name in ("train_size", "train_batch_size", "epochs", "delta")}
    )
    chosen = choices(training, **given)
    if note := delta_note(training.delta, training.train_size):
        print(as_flags(note, options()), file=sys.stderr)
    print(text(training, chosen))
    if out is not None:
        files = write(out, training, chosen)
        print(output.plain(f"\n{out}/  {'  '.join(file.name for file in files)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
