"""Programs that train with keras_norm; run one with --help."""
