"""Looking into networks: ``dynconv explain`` for one input, ``dynconv models`` for what there is and what it costs."""
