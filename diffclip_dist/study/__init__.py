"""Runs few-shot experiments over many draws and reports them."""
