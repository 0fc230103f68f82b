"""The serial link: frames, messages, transports, and the device behind them."""
