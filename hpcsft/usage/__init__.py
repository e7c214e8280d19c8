"""What a run has used, and what to ask for the next time.

Everything comes from the journals, the metrics, the status files, the heartbeats and the plan. Time in allocation is
that of the attempts. An attempt lasts from its first row in the journal to its end: the row `end`, where the batch
script or the local driver wrote it right away (it has a `status` then); else its own last word (done, stopped, failed);
else, where it was killed and only a later attempt looked back, its last sign of life: its rows, `last_seen` of the
next `start` (the newest status, at most a second older than its last step or item), heartbeats. An attempt that has
said nothing of its end and has no successor is taken to run still, up to its last sign of life. What Slurm counts
before the first row (the start of Python) and after the last is not seen: seconds per attempt.

All of it times what was allocated (GPUs; else CPUs; else processes) is one of three, and their sum is the allocation:

computed  training: the steps that stand in metrics.jsonl, each once and without its wait for data (`work`); what
          followed the ends of epochs, validation and export (`epoch_ends`). Other stages: the whole time of attempts
          that kept something (`work`), for their journals tell no more: the item in the making at a kill is in it.
lost      attempts that kept nothing, no step, loss or item, whatever ended them (`nothing_kept`); of training the start
          of every attempt but the first that kept something (`start_again`), and in attempts that ended without a save
          all that came after the last step that was kept, steps in the making included (`steps_again`).
waiting   of training the start of the first attempt that kept something, up to the row `resumed` (`start`); `held_s` of
          a save, at the end of an epoch until it was published, at a stop until the last one was (`saving`); `data_s`
          of steps (`data`); in an attempt that hung all after its last step (`hang`); the rest, such as what lies
          between two steps and the end of a process (`other`).

A step belongs to the last attempt that resumed before it. Steps that were done again are gone from the metrics. Where a
hang or the end of an epoch is to be told from them, they are taken to have lasted as long as the median step.
"""

from hpcsft.usage.reading import usage_of
from hpcsft.usage.record import Advice, Hours, Saves, StageUsage, Usage

__all__ = ["Advice", "Hours", "Saves", "StageUsage", "Usage", "usage_of"]
