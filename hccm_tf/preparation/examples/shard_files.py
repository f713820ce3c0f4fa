"""The files of a shard: the rows of its users, one file for each piece of the log."""

import pyarrow as pa
import pyarrow.compute as pc


def read_shard(job, shard):
    """The rows of a shard's users, in the log's order, or `None` where it has none.

    Args:
        job: `Job`.
        shard: number of the shard.

    Returns:
        Arrow table that maps the files; its `row` is the number of the row in the log.
    """
    files = sorted(job.shard_folder(shard).glob("*.arrow"))
    if not files:
        return None
    tables = []
    for file in files:
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
        row = pc.add(table["row"], job.first_rows[int(file.stem)])
        place = table.column_names.index("row")
        tables.append(table.set_column(place, "row", row))
    return pa.concat_tables(tables)
