"""Cases and results as MRML nodes and scenes. The only room that imports slicer and vtk; import its modules."""
