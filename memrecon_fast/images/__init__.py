"""Images from folders, arrays, Parquet files and data sets; masks from files; photographs for the demo.

Needs the extra `audit` (Pillow, pyarrow); `import memrecon_fast` does not import it.
"""

from memrecon_fast.images.masks import open_masks
from memrecon_fast.images.scan import Images, open_images, scan
from memrecon_fast.images.sources import Source, from_array, from_iterable, open_source

__all__ = ["Images", "Source", "from_array", "from_iterable", "open_images", "open_masks", "open_source", "scan"]
