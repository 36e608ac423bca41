"""Which rows of a raw pool are worth training on: decided once, from columns of scores, before training."""
