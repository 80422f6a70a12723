"""Every Parquet schema and column name of the project.

Each file carries ``SCHEMA_VERSION`` and its provenance in the schema metadata; a reader refuses a
version it does not know.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = "1"
VERSION_KEY = b"clipgan.schema_version"
FINGERPRINT_KEY = b"clipgan.fingerprint"
PROVENANCE_KEY = b"clipgan.provenance"

SAMPLE_ID = "sample_id"
CONCEPT = "concept"
IMAGE = "image"
CAPTIONS = "captions"
SPLIT = "split"
WIDTH = "width"
HEIGHT = "height"
SHA256 = "sha256"
STYLE = "style"
SOURCE_KEY = "source_key"
IMAGE_FEATURES = "image_features"
TEXT_FEATURES = "text_features"

TRAIN = "train"
VALIDATION = "validation"

IMAGE_SHARD = pa.schema(
    [
        pa.field(SAMPLE_ID, pa.string(), nullable=False),
        pa.field(SOURCE_KEY, pa.string(), nullable=False),
        pa.field(CONCEPT, pa.string(), nullable=False),
        pa.field(STYLE, pa.string(), nullable=False),
        pa.field(SPLIT, pa.string(), nullable=False),
        pa.field(CAPTIONS, pa.list_(pa.string()), nullable=False),
        pa.field(WIDTH, pa.int32(), nullable=False),
        pa.field(HEIGHT, pa.int32(), nullable=False),
        pa.field(SHA256, pa.string(), nullable=False),
        pa.field(IMAGE, pa.binary(), nullable=False),
    ]
)
"""One row an image. ``image`` holds the encoded bytes (PNG or JPEG, RGB, square), ``sha256`` their
hash; ``sample_id`` is derived from the content and sorts like the source; ``concept`` groups
variants that must not be divided between splits."""


def feature_shard(dim: int) -> pa.Schema:
    """Schema of a feature shard for vectors of ``dim`` numbers.

    ``image_features`` is one unit vector an image (float16), ``text_features`` one unit vector a
    caption, in the order of ``captions``, which repeats the image shard's.
    """
    vector = pa.list_(pa.float16(), dim)
    return pa.schema(
        [
            pa.field(SAMPLE_ID, pa.string(), nullable=False),
            pa.field(CAPTIONS, pa.list_(pa.string()), nullable=False),
            pa.field(IMAGE_FEATURES, vector, nullable=False),
            pa.field(TEXT_FEATURES, pa.list_(vector), nullable=False),
        ]
    )
