"""Images to learn from: embedded tasks, and loaders for a user's own."""

from cosearch.data.loading import TASKS, load_task, task_shape
from cosearch.data.task import Split, Task, make_task

__all__ = ["TASKS", "Split", "Task", "load_task", "make_task", "task_shape"]
