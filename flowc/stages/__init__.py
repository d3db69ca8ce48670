"""The stage kinds, one module each (closely related ones share one). `flowc.stage.load_all` imports them all."""
