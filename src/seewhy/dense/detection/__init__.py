"""Detectors that are trained on pictures with boxes.

A method is a frozen dataclass in a file of its name, registered with ``@detectors.register`` and named once in
``seewhy.dense.detectors``. Beside what every detector says of itself (``name``, ``spelt``, ``paper``, ``needs``,
``cost``, ``takes_folder = False``) it has the field ``zoom`` and two calls:

- ``fit(reader, data, *, progress=None)`` → :class:`~seewhy.dense.detection.trained.Finder`, from a
  :class:`~seewhy.pictures.boxes.BoxData` whose pictures are there and whose classes have a box each; the
  :class:`~seewhy.dense.reader.Reader` looks with the encoder at ``zoom``. Where it has a parameter
  ``checkpoint: Path``, it is given a place to go on from after it was stopped. A method with ``needs_words = True`` is
  not tried on an encoder that has none.
- ``restore(encoder, classes, tensors)`` → the same, from what its ``tensors()`` gave.

A ``Finder`` makes regions with scores of one picture that was looked at. All else is shared: reading in windows,
folds, the choice between methods, thresholds, suppression, archive, commands. A finder that scores by words takes
other names (``named(encoder, classes)``); that is how classes are found for which there was no box.
"""
