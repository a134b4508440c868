"""Statistics that correlate, predict, compare and gate share: pure functions of numpy arrays, without torch or scipy.

Import from the module of the idea: `coefficients` and `ranks`, `resampling` and `intervals`, `influence`,
`least_squares`, `ordering`, `steps`, `forecast` with `isotonic` and `mixed`, `offset`, `attenuation`.
"""
