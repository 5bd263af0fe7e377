"""A hospital's own use of a model, without privacy: finetune, evaluate, predict. Nothing here is
ever sent, and the guard never imports it."""
