"""Where the run writes: is it shared, may it be written, has it the room?"""
