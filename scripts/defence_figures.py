"""What stored runs say of heuristic defences: a search, a linear estimate, images drawn, and `peel`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import identified, results

from dpbench.report.adaptive import gains
from dpbench.report.compare.intervals import bootstrap, groups
from dpbench.report.evidence import originals
from dpbench.report.naming import Naming
from dpbench.report.rows import ordered

LINEAR, DRAWN = "defences-linear", "defences-drawn"
EXACT = "exact-behind"


def _rows() -> pd.DataFrame:
    """Of the three suites and of `peel`, each attack as far as it was run."""
    exact = results(EXACT)
    exact = exact[(exact["victim"] == "early") & exact["floor"].isna()]
    return pd.concat([*map(results, ("defences", LINEAR, DRAWN)), exact], ignore_index=True)


def adaptive() -> dict[str, Any]:
    """Adaptive less not adaptive, a row for each defence and strength."""
    found = gains(results("defences"))
    verdicts = pd.concat([found["psnr_verdict"], found["lpips_verdict"]])
    return {
        "rows": found.to_dict("records"),
        "images": int(found["images"].max()),
        "settings": len(found),
        "verdicts": verdicts.value_counts().to_dict(),
    }


def drawn() -> list[dict[str, Any]]:
    """Images drawn from the posterior less what the search that knows finds, image by image."""
    searched, rows = (results(name) for name in ("defences", DRAWN))
    searched = searched[searched["adaptive"].fillna(True).astype(bool)]
    naming = Naming(pd.concat([searched, rows], ignore_index=True))
    both = []
    for table in (searched, ordered(rows, batch_last=True)):
        table = table[table["floor"].isna()]
        names = [naming.defence(row) for row in table.to_dict("records")]
        both.append(table.assign(defended=names).set_index(["defended", "original_index"]))
    search, ours = both
    found = []
    for name, part in ours.groupby("defended", sort=False):
        other = search.loc[part.index]
        row = {"defence": name, "images": len(part)}
        for metric in ("psnr", "lpips"):
            gain = (part[metric] - other[metric]).to_numpy(float)
            low, high = bootstrap(gain, part["batch_seed"].to_numpy())
            row[metric] = {"drawn": part[metric].mean(), "search": other[metric].mean()}
            row[metric] |= {"gain": gain.mean(), "low": low, "high": high}
        found.append(row)
    return found


def strongest() -> dict[str, Any]:
    """Each defence and strength with the attack of the highest mean PSNR, and the floors."""
    table = _rows()
    attacked = ordered(table[table["floor"].isna()], batch_last=True)
    naming = Naming(table)
    attacked = attacked.assign(
        defended=[naming.defence(row) for row in attacked.to_dict("records")],
        by=[_short(row) for row in attacked.to_dict("records")],
    )
    plain = attacked[attacked["defense"] == "none"]
    best = plain[plain["by"] == "search"].drop_duplicates("original_index").set_index("original_index")
    floors = table[table["floor"].notna()].drop_duplicates(["floor", "floor_of", "original_index"])
    return {
        "rows": [_strongest(name, part, best) for name, part in attacked.groupby("defended", sort=False)],
        "floors": {
            (name if not of else f"{name} ({of})"): {
                "psnr": part["psnr"].mean(),
                "lpips": part["lpips"].mean(),
                "identified": identified(part),
            }
            for (name, of), part in floors.fillna({"floor_of": ""}).groupby(["floor", "floor_of"])
        },
        "gallery": int(attacked["gallery_size"].max()),
    }


def _short(row: dict[str, Any]) -> str:
    """The attack, and whether it knew of the defence."""
    name = {"lmmse": "linear", "posterior-mean": "drawn", "peel": "`peel`"}.get(row["attack"], "search")
    knows = row["adaptive"]
    return f"{name}, not adaptive" if not pd.isna(knows) and not knows else name


def _strongest(name: str, part: pd.DataFrame, undefended: pd.DataFrame) -> dict[str, Any]:
    means = part.groupby("by")["psnr"].mean().sort_values(ascending=False)
    rows = part[part["by"] == means.index[0]]
    change = rows["psnr"] - undefended["psnr"].reindex(rows["original_index"]).to_numpy()
    low, high = bootstrap(change.to_numpy(float), groups(rows["batch_seed"], originals(rows)))
    return {
        "defence": name,
        "attack": means.index[0],
        "images": len(rows),
        "psnr": rows["psnr"].mean(),
        "least": rows["psnr"].min(),
        "most": rows["psnr"].max(),
        "lpips": rows["lpips"].mean(),
        "identified": identified(rows),
        "change": change.mean(),
        "low": low,
        "high": high,
        "others": {by: psnr for by, psnr in means.items() if by != means.index[0]},
    }
