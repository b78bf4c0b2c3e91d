"""Where processes run: what starts them, places them, watches over them and ends them.

May import `exchange`; never `aar_swarm`. What an agent does is given to this package as the name of a function.
"""
