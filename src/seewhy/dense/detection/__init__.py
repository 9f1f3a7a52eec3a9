"""Detectors that are trained on pictures with boxes.

A method is a frozen dataclass, registered with ``@detectors.register`` and named once in ``seewhy.dense.detectors``,
with the field ``zoom`` and two calls: ``fit(reader, data, *, progress=None)`` → a
:class:`~seewhy.dense.detection.trained.Finder` of a :class:`~seewhy.pictures.boxes.BoxData` whose pictures exist
(with a parameter ``checkpoint: Path``, a stopped training continues from there), and ``restore(encoder, classes,
tensors)`` from the result of its ``tensors()``. ``needs_words = True`` excludes encoders without words. A finder that
scores by words accepts other names: ``named(encoder, classes)``.
"""
