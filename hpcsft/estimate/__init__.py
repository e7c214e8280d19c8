"""What a plan will cost: memory, time and disk."""

from hpcsft.estimate.lead import with_measured_lead, with_signal_lead
from hpcsft.estimate.states import checkpoint_bytes, gpu_hours_limit

__all__ = ["checkpoint_bytes", "gpu_hours_limit", "with_measured_lead", "with_signal_lead"]
