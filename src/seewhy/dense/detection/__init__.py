"""Detectors that are trained on pictures with boxes.

A method is a frozen dataclass, registered with ``@detectors.register`` and named once in ``seewhy.dense.detectors``,
with the field ``zoom`` and two calls: ``fit(reader, data, *, progress=None)`` → a
:class:`~seewhy.dense.detection.trained.Finder` of a :class:`~seewhy.pictures.boxes.BoxData` whose pictures are there
(with a parameter ``checkpoint: Path``, it goes on from there after it was stopped), and ``restore(encoder, classes,
tensors)`` from what its ``tensors()`` gave. ``needs_words = True`` keeps it from encoders without any. A finder that
scores by words takes other names: ``named(encoder, classes)``.
"""
