"""Objects for Kubernetes, as data. Nothing here connects to a cluster.

Open `job.py` first: it turns the CronJob of the backup into a Job for another command.
"""
