"""AI vendors: valuation services as real processes, each with its own trained model, that funds ask over ZeroMQ.

model.py: the world and the models; config.py: the settings; service.py: what a vendor answers, and when it errs;
process.py: the operating-system process around it.
"""
