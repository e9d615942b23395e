"""Colours that colour-blind readers, too, can tell apart."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, without black and yellow: blue, vermilion, green, purple, orange, sky blue."""
