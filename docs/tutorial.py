"""Fine-tune a network on your own images: .venv/bin/python docs/tutorial.py

Put the images of each class into a folder of its own, name the folder and the weights here, and run
this from the repository's root. The report is RUN/report/report.html.
"""

import sys

sys.path.insert(0, ".")
import eval
import predict
import train

FOLDER, WEIGHTS, RUN = "my_folder", "outputs/cct_2_3x2_32/best.ckpt", "outputs/tutorial"
BEST = ["--pretrained", f"{RUN}/best.ckpt"]
recipe = ["--config", "src/configs/finetune.yaml", "--pretrained", WEIGHTS, "--train_url", RUN]
# Process workers (--python_multiprocessing) import this file again, and must not train again.
if __name__ == "__main__":
    failed = train.main([*recipe, "--data_url", FOLDER, "--resume", "auto"])
    failed = failed or eval.main([*BEST, "--data_url", FOLDER, "--report", f"{RUN}/report"])
    shown = ["--input", FOLDER, "--save_pictures", f"{RUN}/pictures"]
    sys.exit(failed or predict.main([*BEST, *shown]))
