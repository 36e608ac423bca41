"""Pretrained causal language models of transformers: whole, or with an adapter on a base that members share."""
