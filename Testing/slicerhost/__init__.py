"""A stand-in for the 3D Slicer application, for development only: runs a scripted module unmodified, with real MRML.

    import slicerhost
    host = slicerhost.start()
    widget = host.load_module(Path("SSLSeg/SSLSeg.py"))

See README.md for what is real, what stands in, and what only Slicer itself can show.
"""

from slicerhost.host import Host, start

__all__ = ["Host", "start"]
