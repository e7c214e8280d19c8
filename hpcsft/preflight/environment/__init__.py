"""The Python of the jobs: is it there, and what is in it?"""
