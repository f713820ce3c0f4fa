"""The flags of `train_main.py`, made from the fields of the classes of options."""
