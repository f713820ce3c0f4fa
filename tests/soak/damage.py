"""Damages files at random."""

import json

# What a cell of a table, or a value of JSON, should not be.
STRANGE = (
    "",
    " ",
    "nan",
    "1e400",
    "9" * 400,
    "-1",
    "0108775015",
    "1,5",
    '"',
    "\0",
    "=1+1",
    "true",
    "[]",
    "x" * 70_000,
    "1.7e9",
    "2020-01-01",
    "é",
)
VALUES = (None, True, -1, 2**63, 10**400, 0.5, 1e308, "", "x", "\ud800", [], [[1]], {})


def damage_bytes(content, rng):
    """Content with some bytes changed, lost, repeated, or cut off at the end."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) + 1))
        size = int(rng.integers(1, 40))
        match rng.integers(5):
            case 0 if content:
                content[place % len(content)] ^= 1 << int(rng.integers(8))
            case 1:
                content[place : place + size] = rng.bytes(size)
            case 2:
                content[place:place] = rng.bytes(size)
            case 3:
                del content[place : place + size]
            case _:
                del content[place:]
    return bytes(content)


def damage_cells(text, rng, separator=","):
    """A text table with some cells replaced, lost or added."""
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        place = rng.integers(len(row))
        strange = STRANGE[rng.integers(len(STRANGE))]
        match rng.integers(6):
            case 0:
                row.insert(place, strange)
            case 1 if len(row) > 1:
                del row[place]
            case _:
                row[place] = strange
    return "\n".join(separator.join(row) for row in rows) + "\n"


def damage_json(content, rng):
    """JSON, as text, with a value somewhere in it replaced, lost or wrapped."""
    content = json.loads(json.dumps(content))
    parent, key = {"all": content}, "all"
    root = parent
    while isinstance(parent[key], (dict, list)) and parent[key] and rng.random() < 0.8:
        parent = parent[key]
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        key = keys[rng.integers(len(keys))]
    match rng.integers(4):
        case 0 if parent is not root:
            del parent[key]
        case 1:
            parent[key] = [parent[key]]
        case _:
            parent[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(root.get("all"))
