"""What annotations tell: AlpacaEval's figures, how sure they are, and what differs between models. Pure and light.

annotations.py     rows of AlpacaEval's annotation files, old and new, and of ours
win_rate.py        win rate, standard error, wins, draws, average length
position.py        what the order of the two answers decides
intervals.py       bootstrap intervals
paired.py          differences between models, over the same prompts
logistic.py        logistic regression on soft targets
length_control.py  win rates at equal length
summary.py         all of it for one model
published.py       rows that others have published, and why they may not be compared
text.py            tables for a terminal
"""
