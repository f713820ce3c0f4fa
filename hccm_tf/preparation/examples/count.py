"""What is counted of the rows before they are written."""

from hccm_tf.preparation.examples import fit_schema, max_candidates, request_ids
from hccm_tf.preparation.examples.shards import load_shard
from hccm_tf.progress import advance


def count(job, shard):
    """Step after the splits: counts a shard's requests and what its training rows hold.

    Values are counted only for a schema that is not yet fitted.
    """
    if "request_id" in job.types and job.num_shards > 1:
        request_ids.leave_keys(job, shard)
    loaded = load_shard(job, shard)
    max_candidates.count_sizes(job, shard, loaded)
    if not job.schema.vocabularies:
        fit_schema.count(job, shard, loaded)
    advance(0 if loaded is None else len(loaded.table))
