"""Golden numbers: files of inputs and expected outputs, checked against `backflip.maths`."""
