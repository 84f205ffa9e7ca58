"""Published datasets to nnU-Net's raw format, each by one command.

A converter is a declaration in a module of its own (`Converter`): where its cases are, what their labels mean, licence,
citation, published counts and splits. Reading, checking and writing are the same for all.
"""
