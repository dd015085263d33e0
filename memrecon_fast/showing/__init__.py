"""How results are shown to a person in a notebook or at a prompt: HTML, pictures, figures, progress bars.

Knows tensors, names and numbers alone; what they mean, the results say. Pillow, matplotlib and rich are imported where
they are used.
"""
