"""The sections of the SSLSeg panel and what they share. Importing this imports no Qt, no torch, no SSLSegLib."""
