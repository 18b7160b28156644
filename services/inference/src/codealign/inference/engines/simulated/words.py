"""Vocabulary of synthetic texts: large enough that texts of different draws have little in common."""

from __future__ import annotations

VERBS = (
    "align", "balance", "bracket", "bundle", "carve", "chain", "chart", "clip", "collapse", "combine", "compact",
    "cover", "cycle", "deal", "derive", "detach", "draft", "drain", "expand", "fold", "gather", "grade", "graft",
    "group", "halve", "index", "interleave", "invert", "label", "layer", "level", "lift", "link", "map", "mark",
    "measure", "merge", "mirror", "nest", "order", "pack", "pair", "patch", "pivot", "plot", "prune", "rank", "reduce",
    "repeat", "rotate", "sample", "scale", "scan", "score", "shift", "slice", "sort", "split", "stack", "trace", "trim",
    "unfold", "weave", "weigh",
)  # fmt: skip
ADJECTIVES = (
    "adjacent", "alternate", "ascending", "average", "binary", "bounded", "broad", "central", "circular", "coarse",
    "common", "cyclic", "dense", "descending", "direct", "distant", "double", "empty", "equal", "even", "exact",
    "external", "final", "fixed", "flat", "fractional", "frequent", "gradual", "hidden", "hollow", "inner", "integral",
    "joint", "largest", "leading", "linear", "local", "lower", "median", "mixed", "narrow", "negative", "nested",
    "numeric", "odd", "outer", "partial", "periodic", "positive", "prime", "quarterly", "rare", "recent", "relative",
    "remote", "rounded", "signed", "sparse", "stable", "trailing", "uneven", "unique", "upper", "weekly",
)  # fmt: skip
NOUNS = (
    "account", "angle", "archive", "arrival", "barrel", "basket", "batch", "beacon", "border", "branch", "bridge",
    "budget", "cable", "canal", "cargo", "chapter", "circuit", "column", "corner", "counter", "crate", "crossing",
    "deposit", "digit", "distance", "divisor", "drawer", "edge", "engine", "entry", "factor", "ferry", "field",
    "filter", "fleet", "flight", "frame", "garden", "gauge", "grain", "harbour", "height", "hinge", "hour", "index",
    "interval", "invoice", "island", "journey", "ladder", "lantern", "ledger", "letter", "lever", "limit", "lot",
    "margin", "market", "measure", "meter", "mirror", "module", "month", "notch", "offset", "orbit", "order", "packet",
    "page", "parcel", "patrol", "payment", "peak", "pedal", "pixel", "platform", "player", "pocket", "price", "pulse",
    "quarter", "queue", "radius", "ratio", "record", "region", "rental", "reserve", "ribbon", "ridge", "route", "row",
    "sample", "school", "season", "sector", "segment", "sensor", "shelf", "shift", "signal", "spool", "station",
    "stream", "street", "surface", "switch", "tariff", "team", "terrace", "ticket", "tower", "track", "tunnel",
    "valley", "valve", "vessel", "voyage", "voucher", "wagon", "wheel", "window", "workshop", "zone",
)  # fmt: skip
