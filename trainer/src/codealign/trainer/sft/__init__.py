"""The fine-tuning program: `python -m codealign.trainer.sft <job.json>`."""
