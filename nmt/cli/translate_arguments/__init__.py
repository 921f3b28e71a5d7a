"""The arguments of nmt-translate, one module for each group of options."""
