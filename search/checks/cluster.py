"""What must hold for the section `cluster:` of a run's file: between its keys, and with other sections."""

from shoal.search.config.run import Run


def check_broods(run: Run) -> str:
    given, members = run.cluster, run.population.members
    if given.workers_per_brood and given.members_per_worker:
        return "cluster.members_per_worker: stands in place of cluster.workers_per_brood; give one of the two"
    if run.workers_per_brood % given.workers_per_member:
        return (
            f"cluster.workers_per_brood: must be a multiple of cluster.workers_per_member "
            f"({given.workers_per_member}), got {run.workers_per_brood}"
        )
    if run.hosts > members:
        workers = given.broods * run.workers_per_brood
        return (
            f"cluster.broods: {workers} workers ({given.broods} broods of {run.workers_per_brood}) "
            f"must host at least one member each, but population.members is {members}"
        )
    return ""


def check_span(run: Run) -> str:
    given = run.cluster
    size = given.workers_per_member
    if size == 1:
        return ""
    if run.trainable == "toy":
        return "cluster.workers_per_member: the toy has no batches to share out; use 1"
    if run.trainable == "causal_lm" and given.span == "fsdp":
        return "cluster.span: must be ddp with trainable: causal_lm, whose members share a base"
    if run.population.mode == "asynchronous":
        return "cluster.workers_per_member: must be 1 with population.mode: asynchronous"
    if given.stack:
        return f"cluster.stack: members that span {size} workers each cannot be stacked"
    if run.training.batch % size:
        return (
            f"training.batch: must be a multiple of cluster.workers_per_member ({size}), each of which takes "
            f"its share, got {run.training.batch}"
        )
    if given.gpus_per_worker % 1:
        return (
            f"cluster.gpus_per_worker: workers of one member need whole GPUs (NCCL refuses two on one), "
            f"got {given.gpus_per_worker:g}"
        )
    return ""


def check_compile(run: Run) -> str:
    given = run.cluster
    if not given.compile:
        return ""
    if run.training.gradient_checkpointing:
        return (
            "cluster.compile: decides itself what is computed again; with it training.gradient_checkpointing "
            "must be false"
        )
    if given.stack is False:
        return (
            "cluster.compile: compiles stacks of members, and cluster.stack is false; leave one of the two out"
        )
    if given.workers_per_member > 1:
        return (
            f"cluster.compile: compiles stacks of members, and members that span {given.workers_per_member} "
            f"workers each are not stacked; leave it out"
        )
    if run.trainable == "causal_lm":
        return "cluster.compile: compiles stacks that train by vmap, and adapters are stacked in another way"
    if run.trainable == "toy" or run.kind == "distill":
        return "cluster.compile: compiles stacks of members, and neither toys nor super-networks are stacked"
    return ""


def check_room(run: Run) -> str:
    least, most = run.cluster.broods_least, run.cluster.broods
    if least is None:
        return ""
    if least > most:
        return f"cluster.broods_least: must be at most cluster.broods ({most}), got {least}"
    if run.sampling.view == "brood":
        return "cluster.broods_least: the broods' shared ledger needs a fixed number of broods"
    return ""
