"""The input of a first real run: a small pretrained model, real dialogs, held-out questions. No network needed."""
