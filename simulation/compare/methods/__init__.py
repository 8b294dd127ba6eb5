"""The methods that ship; each file in this folder is looked through for them."""
