"""What the trained tasks share: one way to train, log, seed, resume and gate on mmengine's Runner.

The parts, in the order a task uses them::

    with session(scope="mmdet", work_dir=context.work_dir, seed=context.seed) as opened:   # session.py
        encoder = fresh_encoder(context.checkpoint, drop_path=0.1)                         # encoder.py
        model = ...                                     # the task's own: an mmengine BaseModel around `encoder`
        gates = check_gates(...)                                                           # parity.py
        batch = plan_batch(total=16, requested=context.batch_size)                         # batch.py
        loader = keyed_loader(dataset, batch_size=batch.size, seed=context.seed, ...)      # stream.py
        metrics = train_and_evaluate(opened, model=model, encoder=encoder, ...)            # runner.py

Importing this package, or any module in it, does not import mmengine; that happens inside the functions.
"""
