"""Cases and cohorts: what is read, where it lies in the patient, and how it becomes grey levels and frames.

Array order is (slice, row, column) = KJI throughout; positions are RAS millimetres. Import the submodules.
"""
