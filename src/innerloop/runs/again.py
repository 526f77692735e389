"""A run that is done and is asked for once more: a script or a notebook's cell that runs a second time.

done_before   a config -> what its run learned, where that is done
"""

from innerloop.config.loading import RunConfig
from innerloop.engine.session import prepare
from innerloop.loading.models import LoadedModel
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import is_done
from innerloop.runs.reloading import load_run
from innerloop.runs.resuming import earlier_start, same_config, same_inputs


def done_before(config: RunConfig, *, model: LoadedModel | None = None) -> Learned | None:
    """None where there is no run in output_dir, or it isn't done.

    Raises UserError with each key of the config that is another now, and with what of weights, examples and tokens is.
    """
    if not is_done(config):
        return None
    before = earlier_start(config.output_dir)
    assert before is not None
    session = prepare(same_config(before, config), model=model)
    same_inputs(before, session)
    trains_base = config.method.row.space.trains_base
    return load_run(config.output_dir, model=None if trains_base else session.model)
