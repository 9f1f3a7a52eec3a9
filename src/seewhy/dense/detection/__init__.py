"""Detectors that are trained on pictures with boxes.

A method is a frozen dataclass, registered with ``@detectors.register`` and listed in ``seewhy.dense.detectors``. It has
the field ``zoom`` and two methods:

- ``fit(reader, data, *, progress=None)`` returns a :class:`~seewhy.dense.detection.trained.Finder`. An optional
  argument ``checkpoint: Path`` makes training resumable.
- ``restore(encoder, classes, tensors)`` rebuilds the finder from its ``tensors()``.

``needs_words = True`` excludes encoders without a text encoder. A finder that accepts other names has the method
``named(encoder, classes)``.
"""
