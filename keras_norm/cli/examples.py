"""Examples at the end of `keras-norm --help`."""

EXAMPLES = """\
examples:
  # list the batch normalization of a model and the activations behind it
  keras-norm inspect model.keras
  # show the changes without writing a file
  keras-norm convert model.keras --to frn --plan
  # RBN is numerically equivalent until it is trained: verify this
  keras-norm convert model.keras calibrated.keras --to rbn --verify
  # group normalization everywhere except in the stem
  keras-norm convert old.h5 out.keras --to gn --arg groups=16 --exclude 'stem*'
  # keep the accuracy: fit the new layers to 256 images without labels
  keras-norm convert model.keras out.keras --to frn --data photos --pixels tf \\
      --num-images 256

fold: batch normalization moves into the weights of the convolution or dense
layer before it or behind it. The outputs at inference stay the same, which is
verified on random inputs, and inference is faster. Training goes on with the
unfolded model.
  # write a model for inference without batch normalization
  keras-norm fold model.keras folded.keras
  # list the layers that stay and the reasons without writing a file
  keras-norm fold model.keras --plan

recalibrate: moving statistics are computed anew from data without labels, layer
by layer, as they occur at inference. Use it after averaging weights, and to
adapt a model to images of another domain. Compare the accuracy before and
after: not every change of the images can be compensated.
  # statistics of the arrays in a file
  keras-norm recalibrate model.keras out.keras --data images.npz
  # of 500 images in a folder, with pixels as the model was trained with
  keras-norm recalibrate model.keras out.keras --data photos --pixels tf \\
      --num-images 500
  # few images: the old statistics count as if they came from 64 images
  keras-norm recalibrate model.keras out.keras --data x.npy --prior 64

pool: the moving statistics of several copies of a model are combined by the law
of total variance, such as those of federated clients or averaged checkpoints.
  # copies of the same weights, with statistics of 1000 and of 3000 examples
  keras-norm pool a.keras b.keras out.keras --counts 1000,3000
  # federated averaging: all other weights are averaged too
  keras-norm pool a.keras b.keras out.keras --counts 1,1 --average-weights

upgrade: the model of an older Keras, such as Keras 2, is written for this one,
with the same outputs. The other commands also read such files.
  keras-norm upgrade old.h5 new.keras --verify
"""
