"""Dice, IoU and distances in mm with named definitions; reports with tables and pictures."""
